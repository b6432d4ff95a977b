package android.database;

/** Source: https://developer.android.com/reference/android/database/Cursor */
public interface Cursor extends java.io.Closeable {
    boolean moveToFirst();
    int getColumnIndex(String columnName);
    String getString(int columnIndex);
    @Override
    void close();
}
