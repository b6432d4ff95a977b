package android.app;

/** Source: https://developer.android.com/reference/android/app/NotificationChannel */
public final class NotificationChannel {
    public NotificationChannel(String id, CharSequence name, int importance) {
        throw new UnsupportedOperationException();
    }
}
