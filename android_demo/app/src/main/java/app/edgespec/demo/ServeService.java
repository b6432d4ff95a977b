package app.edgespec.demo;

import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.app.Service;
import android.content.Context;
import android.content.Intent;
import android.content.SharedPreferences;
import android.os.IBinder;
import java.math.BigInteger;
import java.security.SecureRandom;

/** Keeps the app alive while it answers other apps of this device, who know a key. */
public final class ServeService extends Service {
    private static final int PORT = 8088;
    private static final String CHANNEL = "serve";

    @Override
    public int onStartCommand(Intent intent, int flags, int id) {
        String name = getString(R.string.serving);
        NotificationManager manager = getSystemService(NotificationManager.class);
        manager.createNotificationChannel(
                new NotificationChannel(CHANNEL, name, NotificationManager.IMPORTANCE_LOW));
        Intent open = new Intent(this, MainActivity.class);
        PendingIntent tap = PendingIntent.getActivity(this, 0, open, PendingIntent.FLAG_IMMUTABLE);
        Notification shown =
                new Notification.Builder(this, CHANNEL)
                        .setSmallIcon(R.drawable.icon)
                        .setContentTitle(name)
                        .setContentIntent(tap)
                        .build();
        startForeground(1, shown);
        DemoApplication app = (DemoApplication) getApplication();
        app.chat().serve(key(this), PORT);
        app.setServiceStarted(true);
        return START_NOT_STICKY;
    }

    @Override
    public void onDestroy() {
        DemoApplication app = (DemoApplication) getApplication();
        app.setServiceStarted(false);
        app.chat().stopServing();
        super.onDestroy();
    }

    @Override
    public IBinder onBind(Intent intent) {
        return null;
    }

    /** The key that other apps have to know: 160 bits at random, the same from start to start. */
    static String key(Context context) {
        SharedPreferences kept = context.getSharedPreferences("serve", Context.MODE_PRIVATE);
        String key = kept.getString("key", "");
        if (key.isEmpty()) {
            key = new BigInteger(160, new SecureRandom()).toString(36);
            kept.edit().putString("key", key).apply();
        }
        return key;
    }
}
