import app.edgespec.bridge.Caller;
import app.edgespec.bridge.ChatModel;
import app.edgespec.bridge.ChatModel.State;
import app.edgespec.bridge.Comparison;
import app.edgespec.bridge.EngineBridge;
import app.edgespec.bridge.Figures;
import app.edgespec.bridge.Message;
import app.edgespec.bridge.OpenModel;
import app.edgespec.bridge.Outcome;
import app.edgespec.bridge.PythonEngine;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** What a phone's user does, with real CPython; each prints a line of figures for pytest. */
public final class Scenarios {
    private static final String QUESTION = "Tell me a story about a fox who lost her kite.";
    private static final long WAIT_S = 60;

    private final ExecutorService thread = Executors.newSingleThreadExecutor(Scenarios::worker);
    private final EngineBridge engine;
    private final Caller python;
    private final Path folder;

    private Scenarios(Caller python, Path folder) {
        this.python = python;
        this.folder = folder;
        engine = new PythonEngine(python);
    }

    /** Arguments: a folder to write to, then where Python finds its modules. */
    public static void main(String[] arguments) throws Exception {
        String[] paths = Arrays.copyOfRange(arguments, 1, arguments.length);
        Scenarios all = new Scenarios(new JepCaller(paths), Path.of(arguments[0]));
        int status = 0;
        try {
            all.run();
        } catch (Throwable error) {
            error.printStackTrace();
            status = 1;
        }
        System.exit(status); // Python's own threads would keep the process
    }

    private void run() throws Exception {
        on(this::streams);
        cancels();
        on(this::survives);
        conversation();
        on(this::measures);
        on(this::serves);
        on(this::reopens);
    }

    private Void streams() {
        OpenModel model = open("on").value;
        Message said = new Message(Message.ASSISTANT, "");
        List<Long> times = new ArrayList<>();
        StringBuilder text = new StringBuilder();
        int[] drafted = {0};
        Figures figures = engine.generate(question(), (piece, fromDraft) -> {
            times.add(System.nanoTime());
            text.append(piece);
            drafted[0] += fromDraft ? 1 : 0;
            return true;
        }).value;
        long spread = (times.get(times.size() - 1) - times.get(0)) / 1_000_000;
        print("streams", "pieces", times.size(), "drafted", drafted[0], "spread_ms", spread,
                "tokens", figures.tokens, "finish", figures.finish, "name", model.name,
                "text", text.toString().replace('\n', ' '));
        return null;
    }

    /** The answer's thread is in Python when another one cancels. */
    private void cancels() throws Exception {
        on(() -> engine.open(Map.of("pair", "demo", "max_tokens", 900, "threads", 1), null));
        engine.stats(); // this thread's interpreter
        List<Long> took = new ArrayList<>();
        String finish = "";
        for (int round = 0; round < 5; round++) {
            CountDownLatch begun = new CountDownLatch(8);
            var answer = thread.submit(() -> engine.generate(question(), (piece, fromDraft) -> {
                begun.countDown();
                return true;
            }));
            begun.await(WAIT_S, TimeUnit.SECONDS);
            long start = System.nanoTime();
            engine.cancel();
            finish = answer.get(WAIT_S, TimeUnit.SECONDS).value.finish;
            took.add((System.nanoTime() - start) / 1_000);
        }
        print("cancels", "finish", finish, "most_us", Collections.max(took));
    }

    private Void survives() {
        Outcome<OpenModel> bad = engine.open(Map.of("model", "/none/model.gguf"), null);
        Outcome<Figures> thrown = engine.generate(question(), (piece, fromDraft) -> {
            throw new IllegalStateException("the screen is gone");
        });
        String unknown = "";
        try {
            python.call("no_such_method");
        } catch (RuntimeException error) {
            unknown = error.getMessage();
        }
        Figures after = engine.generate(question(), (piece, fromDraft) -> true).value;
        print("survives", "bad", bad.error, "thrown", thrown.error, "unknown", unknown,
                "after", after.finish);
        return null;
    }

    /** A scripted conversation; the states that a screen would have seen. */
    private void conversation() throws Exception {
        Set<String> seen = Collections.synchronizedSet(new LinkedHashSet<>());
        ChatModel[] model = new ChatModel[1];
        model[0] = new ChatModel(engine, thread, () -> seen.add(model[0].state().toString()));
        ChatModel chat = model[0];
        chat.open(Map.of("model", "/none/model.gguf"));
        idle();
        String failed = chat.state() + "/" + (chat.error() == null ? "" : chat.error().kind);
        boolean refused = !chat.ask("Hello.");
        chat.open(Map.of("pair", "demo", "max_tokens", 24, "speculative", "on", "threads", 1));
        idle();
        String talk = folder.resolve("talk.json").toString();
        String other = folder.resolve("other.json").toString();
        chat.clear(talk);
        chat.ask(QUESTION);
        boolean busy = !chat.ask("Again?") && !chat.regenerate();
        boolean apart = !chat.load(other) && !chat.clear(other);
        idle();
        String first = chat.messages().get(1).text();
        int spans = chat.messages().get(1).drafted().size();
        String line = chat.figures().line();
        chat.ask("And then?");
        chat.stop();
        idle();
        int stopped = chat.messages().size();
        chat.clear(other);
        chat.ask(QUESTION);
        idle();
        chat.regenerate();
        idle();
        boolean same = chat.messages().get(1).text().equals(first);
        int regenerated = chat.messages().size();
        chat.load(talk);
        idle();
        int loaded = chat.messages().size();
        String late = loadedLate(chat, talk, other);
        chat.adjust(Map.of("thermal", 3));
        chat.unload();
        chat.ask("And then?");
        idle();
        String hot = chat.figures().note;
        chat.adjust(Map.of());
        chat.ask("word ".repeat(2000));
        idle();
        String tooLong = chat.error().kind;
        print("conversation", "tooLong", tooLong, "failed", failed, "refused", refused, "busy", busy, "spans", spans,
                "line", line, "stopped", stopped, "same", same, "regenerated", regenerated,
                "loaded", loaded, "apart", apart, "late", late, "hot", hot, "last", chat.state(), "seen", seen);
    }

    /** A question comes before another conversation was read: what is kept where. */
    private String loadedLate(ChatModel chat, String talk, String other) throws Exception {
        CountDownLatch free = new CountDownLatch(1);
        thread.submit(() -> free.await(WAIT_S, TimeUnit.SECONDS));
        chat.load(other);
        chat.ask("And then?");
        free.countDown();
        idle();
        int more = on(() -> messagesIn(talk)) - chat.messages().size();
        int others = on(() -> messagesIn(other));
        return (chat.kept().equals(talk) ? "talk" : "other") + "/" + more + "/" + others;
    }

    private int messagesIn(String path) {
        List<String> found = new ArrayList<>();
        engine.load(path, (role, text) -> found.add(text));
        return found.size();
    }

    private Void measures() {
        open("auto");
        List<Double> shares = new ArrayList<>();
        Comparison found =
                engine.benchmark(List.of(QUESTION), (what, share) -> shares.add(share)).value;
        print("measures", "times", found.times, "without", found.withoutTokensPerSecond,
                "with", found.withTokensPerSecond, "tokens", found.tokens, "same", found.same,
                "told", shares.size(), "text", found.text().replace('\n', ' '));
        return null;
    }

    private Void serves() throws Exception {
        open("auto");
        String url = engine.serve("a-key", 0).value;
        var client = java.net.http.HttpClient.newHttpClient();
        int[] statuses = new int[2];
        for (int i = 0; i < 2; i++) {
            var request = java.net.http.HttpRequest.newBuilder(java.net.URI.create(url + "/models"))
                    .header("Authorization", "Bearer " + (i == 0 ? "a-key" : "guess")).build();
            statuses[i] = client.send(request, java.net.http.HttpResponse.BodyHandlers.ofString())
                    .statusCode();
        }
        engine.stopServing();
        print("serves", "url", url, "known", statuses[0], "unknown", statuses[1]);
        return null;
    }

    /** Memory after two warm cycles and after ten more. */
    private Void reopens() throws IOException {
        long before = 0;
        for (int cycle = 0; cycle < 12; cycle++) {
            open("on");
            engine.generate(question(), (piece, fromDraft) -> true);
            engine.close();
            before = cycle == 1 ? residentKib() : before;
        }
        print("reopens", "growth_kib", residentKib() - before, "resident_kib", before);
        return null;
    }

    private Outcome<OpenModel> open(String speculative) {
        return engine.open(
                new TreeMap<>(Map.of("pair", "demo", "speculative", speculative, "max_tokens", 24,
                        "threads", 1)), null);
    }

    private static List<Message> question() {
        return List.of(new Message(Message.USER, QUESTION));
    }

    private <T> T on(Callable<T> work) throws Exception {
        return thread.submit(work).get(WAIT_S, TimeUnit.SECONDS);
    }

    /** Waits until the engine's thread has done all that it was given. */
    private void idle() throws Exception {
        on(() -> null);
    }

    private static long residentKib() throws IOException {
        System.gc();
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmRSS:")) {
                return Long.parseLong(line.replaceAll("\\D", ""));
            }
        }
        throw new IOException("no VmRSS");
    }

    /** A thread with the stack that the engine's templates and graphs want. */
    private static Thread worker(Runnable work) {
        Thread made = new Thread(null, work, "engine", 16 << 20);
        made.setDaemon(true);
        return made;
    }

    private static void print(String scenario, Object... pairs) {
        StringBuilder line = new StringBuilder(scenario);
        for (int i = 0; i < pairs.length; i += 2) {
            line.append('\t').append(pairs[i]).append('=').append(pairs[i + 1]);
        }
        System.out.println(line);
    }
}
