package android.app;

/** Source: https://developer.android.com/reference/android/app/NotificationManager */
public class NotificationManager {
    public static final int IMPORTANCE_LOW = 2;
    public void createNotificationChannel(NotificationChannel channel) {
        throw new UnsupportedOperationException();
    }
}
