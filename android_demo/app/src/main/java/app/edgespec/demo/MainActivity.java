package app.edgespec.demo;

import android.app.Activity;
import android.app.AlertDialog;
import android.content.ClipData;
import android.content.ClipboardManager;
import android.content.Intent;
import android.net.Uri;
import android.os.Bundle;
import android.view.Menu;
import android.view.MenuItem;
import android.view.View;
import android.widget.Button;
import android.widget.EditText;
import android.widget.ListView;
import android.widget.TextView;
import android.widget.Toast;
import app.edgespec.bridge.ChatModel;
import app.edgespec.bridge.ChatModel.State;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.IntConsumer;

/** The conversation, and what can be done with it. */
public final class MainActivity extends Activity {
    private static final int IMPORT = 1;
    private static final int EXPORT = 2;
    private static final List<String> QUESTIONS =
            List.of(
                    "Tell me a story about a fox who lost her kite.",
                    "Tell me a story about a boy and a big red ball.");

    private DemoApplication app;
    private ChatModel chat;
    private Storage storage;
    private MessageList list;
    private EditText question;
    private TextView figures;
    private Button send;
    private State shown = State.CLOSED;
    private String copying = "";
    private boolean awaitsAddress;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        setContentView(R.layout.main);
        app = (DemoApplication) getApplication();
        chat = app.chat();
        storage = app.storage();
        list = new MessageList(this);
        question = findViewById(R.id.question);
        figures = findViewById(R.id.figures);
        send = findViewById(R.id.send);
        send.setOnClickListener(this::sendOrStop);
        ListView messages = findViewById(R.id.messages);
        messages.setAdapter(list);
        messages.setOnItemLongClickListener(
                (parent, view, position, id) -> copy(list.getItem(position).text()));
        if (chat.state() == State.CLOSED) {
            open(null, null);
        }
    }

    @Override
    protected void onResume() {
        super.onResume();
        app.watch(this::show);
        show();
    }

    @Override
    protected void onPause() {
        app.watch(() -> {});
        super.onPause();
    }

    @Override
    public boolean onCreateOptionsMenu(Menu menu) {
        getMenuInflater().inflate(R.menu.main, menu);
        return true;
    }

    @Override
    public boolean onPrepareOptionsMenu(Menu menu) {
        menu.findItem(R.id.serve).setChecked(chat.isServing());
        return super.onPrepareOptionsMenu(menu);
    }

    @Override
    public boolean onOptionsItemSelected(MenuItem item) {
        int id = item.getItemId();
        if (id == R.id.regenerate) {
            chat.regenerate();
        } else if (id == R.id.new_chat) {
            newChat();
        } else if (id == R.id.history) {
            chooseTalk();
        } else if (id == R.id.export) {
            export();
        } else if (id == R.id.models) {
            chooseTarget();
        } else if (id == R.id.benchmark) {
            chat.measure(QUESTIONS);
        } else if (id == R.id.serve) {
            serve(!item.isChecked());
        } else {
            return super.onOptionsItemSelected(item);
        }
        return true;
    }

    /** Shows the model as it is now. */
    private void show() {
        State state = chat.state();
        if (shown == State.MEASURING && state == State.READY && chat.comparison() != null) {
            say(R.string.benchmark, chat.comparison().text());
        }
        if (awaitsAddress && !chat.address().isEmpty()) {
            awaitsAddress = false;
            String key = ServeService.key(this);
            say(R.string.serve, getString(R.string.served, chat.address(), key));
            copy(key);
        }
        shown = state;
        list.show(chat.messages());
        figures.setText(line());
        boolean isBusy = state == State.ANSWERING || state == State.MEASURING;
        send.setText(isBusy ? R.string.stop : R.string.send);
        send.setEnabled(isBusy || state == State.READY);
    }

    /** The quiet line: what takes a while, what went wrong, or how the last answer went. */
    private String line() {
        if (!copying.isEmpty()) {
            return copying;
        }
        if (chat.error() != null) {
            return chat.error().message;
        }
        if (!chat.status().isEmpty() || chat.figures() == null) {
            return chat.status();
        }
        return chat.figures().line();
    }

    private void sendOrStop(View button) {
        if (chat.state() != State.READY) {
            chat.stop();
        } else if (chat.ask(question.getText().toString())) {
            question.getText().clear();
        }
    }

    private boolean copy(String text) {
        ClipData copied = ClipData.newPlainText(getString(R.string.app_name), text);
        getSystemService(ClipboardManager.class).setPrimaryClip(copied);
        Toast.makeText(this, R.string.copied, Toast.LENGTH_SHORT).show();
        return true;
    }

    /** Opens models: null and null are the demo pair; no drafter means lookups in the text. */
    private void open(File target, File drafter) {
        Map<String, Object> settings = app.device();
        if (target != null) {
            settings.put("model", target.getPath());
            settings.put("drafter", drafter == null ? "ngram" : "auto");
        }
        if (drafter != null) {
            settings.put("draft_model", drafter.getPath());
        }
        chat.open(settings);
    }

    private void chooseTarget() {
        File[] files = storage.models();
        List<String> names = namesOf(files);
        names.add(0, getString(R.string.demo_pair));
        names.add(getString(R.string.import_model));
        choose(R.string.models, names, at -> {
            if (at == 0) {
                open(null, null);
            } else if (at <= files.length) {
                chooseDrafter(files[at - 1]);
            } else {
                pick(new Intent(Intent.ACTION_OPEN_DOCUMENT), "*/*", IMPORT);
            }
        });
    }

    private void chooseDrafter(File target) {
        File[] files = storage.models();
        List<String> names = namesOf(files);
        names.add(0, getString(R.string.lookups));
        choose(R.string.choose_drafter, names, at -> open(target, at == 0 ? null : files[at - 1]));
    }

    private void newChat() {
        chat.clear(storage.newTalk().getPath());
    }

    private void chooseTalk() {
        File[] files = storage.talks();
        if (files.length == 0) {
            say(R.string.history, getString(R.string.history_empty));
            return;
        }
        choose(R.string.history, namesOf(files), at -> chat.load(files[at].getPath()));
    }

    private void export() {
        File talk = new File(chat.kept());
        if (talk.exists()) {
            Intent intent = new Intent(Intent.ACTION_CREATE_DOCUMENT);
            intent.putExtra(Intent.EXTRA_TITLE, talk.getName());
            pick(intent, "application/json", EXPORT);
        }
    }

    private void serve(boolean on) {
        Intent service = new Intent(this, ServeService.class);
        if (!on || chat.model() == null) {
            awaitsAddress = false;
            stopService(service);
            return;
        }
        awaitsAddress = true;
        requestPermissions(new String[] {"android.permission.POST_NOTIFICATIONS"}, 0);
        startForegroundService(service);
    }

    private void pick(Intent intent, String type, int request) {
        startActivityForResult(intent.addCategory(Intent.CATEGORY_OPENABLE).setType(type), request);
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        Uri chosen = data == null ? null : data.getData();
        if (result == RESULT_OK && chosen != null) {
            File talk = new File(chat.kept());
            new Thread(() -> copyFile(request, chosen, talk), "copy").start();
        }
    }

    /** What takes long of a file that the user chose; not on the screen's thread. */
    private void copyFile(int request, Uri chosen, File talk) {
        try {
            String name = storage.nameOf(chosen);
            onScreen(() -> copying(getString(R.string.importing, name)));
            if (request == EXPORT) {
                storage.export(talk, chosen);
                onScreen(() -> copying(""));
            } else {
                File model = storage.importModel(chosen);
                onScreen(() -> {
                    copying("");
                    chooseDrafter(model);
                });
            }
        } catch (IOException | RuntimeException error) { // also what the provider throws
            onScreen(() -> {
                copying("");
                figures.setText(String.valueOf(error.getMessage()));
            });
        }
    }

    private void copying(String what) {
        copying = what;
        show();
    }

    /** Runs on the screen's thread, unless the screen is gone by then. */
    private void onScreen(Runnable action) {
        runOnUiThread(() -> {
            if (!isFinishing() && !isDestroyed()) {
                action.run();
            }
        });
    }

    private void choose(int title, List<String> names, IntConsumer chosen) {
        new AlertDialog.Builder(this)
                .setTitle(title)
                .setItems(names.toArray(new String[0]), (dialog, at) -> chosen.accept(at))
                .show();
    }

    private void say(int title, String text) {
        new AlertDialog.Builder(this)
                .setTitle(title)
                .setMessage(text)
                .setPositiveButton(android.R.string.ok, null)
                .show();
    }

    private static List<String> namesOf(File[] files) {
        List<String> names = new ArrayList<>();
        for (File file : files) {
            names.add(file.getName());
        }
        return names;
    }
}
