package app.edgespec.demo;

import android.content.ContentResolver;
import android.content.Context;
import android.database.Cursor;
import android.net.Uri;
import android.provider.OpenableColumns;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.text.SimpleDateFormat;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Date;
import java.util.Locale;

/** The app's own files: models that were imported, conversations that were kept. */
final class Storage {
    private static final String MODEL = ".gguf";
    private static final String TALK = ".json";

    private final Context context;

    Storage(Context context) {
        this.context = context;
    }

    /** The file of a conversation that begins now. */
    File newTalk() {
        String name = new SimpleDateFormat("yyyy-MM-dd HH.mm.ss", Locale.ROOT).format(new Date());
        return new File(folder("talks"), name + TALK);
    }

    /** Imported models, by name. */
    File[] models() {
        return files("models", MODEL, Comparator.comparing(File::getName));
    }

    /** Conversations, the last one first. */
    File[] talks() {
        return files("talks", TALK, Comparator.comparing(File::getName).reversed());
    }

    /** Copies a file that the user chose into the app's models. */
    File importModel(Uri source) throws IOException {
        File target = new File(folder("models"), modelName(nameOf(source)));
        File part = new File(target.getPath() + ".part");
        try (InputStream in = opened(resolver().openInputStream(source), source)) {
            Files.copy(in, part.toPath(), StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException error) {
            part.delete();
            throw error;
        }
        if (!part.renameTo(target)) {
            throw new IOException(target.getName() + " cannot be written");
        }
        return target;
    }

    /** Copies a conversation to where the user wants it, in place of what is there. */
    void export(File talk, Uri target) throws IOException {
        try (OutputStream out = opened(resolver().openOutputStream(target, "wt"), target)) {
            Files.copy(talk.toPath(), out);
        }
    }

    /** A stream of a provider that has not crashed meanwhile. */
    private static <T> T opened(T stream, Uri file) throws IOException {
        if (stream == null) {
            throw new IOException(file + " cannot be opened");
        }
        return stream;
    }

    /** A file's name as its provider gives it, "file" where it gives none; it may take a while. */
    String nameOf(Uri source) {
        String name = null;
        try (Cursor cursor = resolver().query(source, null, null, null, null)) {
            if (cursor != null && cursor.moveToFirst()) {
                int column = cursor.getColumnIndex(OpenableColumns.DISPLAY_NAME);
                name = column < 0 ? null : cursor.getString(column);
            }
        }
        return name == null ? "file" : name;
    }

    /** A name made to end as models do and to lie in a folder. */
    private static String modelName(String name) {
        String plain = name.replaceAll("[^A-Za-z0-9._-]", "_");
        return plain.endsWith(MODEL) ? plain : plain + MODEL;
    }

    private ContentResolver resolver() {
        return context.getContentResolver();
    }

    private File[] files(String folder, String ending, Comparator<File> order) {
        File[] found = folder(folder).listFiles((parent, name) -> name.endsWith(ending));
        File[] files = found == null ? new File[0] : found;
        Arrays.sort(files, order);
        return files;
    }

    private File folder(String name) {
        File folder = new File(context.getFilesDir(), name);
        folder.mkdirs();
        return folder;
    }
}
