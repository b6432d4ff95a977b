package android.content;

import java.io.File;
import android.content.pm.ApplicationInfo;

/** Source: https://developer.android.com/reference/android/content/Context */
public abstract class Context {
    public static final int MODE_PRIVATE = 0;
    public final int getColor(int id) {
        throw new UnsupportedOperationException();
    }
    public final String getString(int resId) {
        throw new UnsupportedOperationException();
    }
    public final String getString(int resId, Object... formatArgs) {
        throw new UnsupportedOperationException();
    }
    public final <T> T getSystemService(Class<T> serviceClass) {
        throw new UnsupportedOperationException();
    }
    public ApplicationInfo getApplicationInfo() {
        throw new UnsupportedOperationException();
    }
    public ContentResolver getContentResolver() {
        throw new UnsupportedOperationException();
    }
    public File getFilesDir() {
        throw new UnsupportedOperationException();
    }
    public SharedPreferences getSharedPreferences(String name, int mode) {
        throw new UnsupportedOperationException();
    }
    public Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter) {
        throw new UnsupportedOperationException();
    }
    // An Android Context that is no Activity; declared by android.content.ContextWrapper as well.
    public android.content.ComponentName startForegroundService(Intent service) {
        throw new UnsupportedOperationException();
    }
    public boolean stopService(Intent service) {
        throw new UnsupportedOperationException();
    }
}
