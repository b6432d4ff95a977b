package android.app;

import android.content.Intent;
import android.os.IBinder;
import android.content.Context;

/** Source: https://developer.android.com/reference/android/app/Service */
public abstract class Service extends Context {
    public static final int START_NOT_STICKY = 2;
    public int onStartCommand(Intent intent, int flags, int startId) {
        throw new UnsupportedOperationException();
    }
    public void onDestroy() {}
    public abstract IBinder onBind(Intent intent);
    public final Application getApplication() {
        throw new UnsupportedOperationException();
    }
    public final void startForeground(int id, Notification notification) {
        throw new UnsupportedOperationException();
    }
}
