package android.content;

/** Source: https://developer.android.com/reference/android/content/BroadcastReceiver */
public abstract class BroadcastReceiver {
    public abstract void onReceive(Context context, Intent intent);
}
