package android.content;

import android.net.Uri;
import java.io.FileNotFoundException;
import java.io.InputStream;
import java.io.OutputStream;
import android.database.Cursor;

/** Source: https://developer.android.com/reference/android/content/ContentResolver */
public abstract class ContentResolver {
    public final InputStream openInputStream(Uri uri) throws FileNotFoundException {
        throw new UnsupportedOperationException();
    }
    public final OutputStream openOutputStream(Uri uri, String mode)
            throws FileNotFoundException {
        throw new UnsupportedOperationException();
    }
    public final Cursor query(Uri uri, String[] projection, String selection,
            String[] selectionArgs, String sortOrder) {
        throw new UnsupportedOperationException();
    }
}
