package android.app;

import android.content.Intent;
import android.content.Context;

/** Source: https://developer.android.com/reference/android/app/PendingIntent */
public final class PendingIntent {
    public static final int FLAG_IMMUTABLE = 67108864;
    public static PendingIntent getActivity(Context context, int requestCode, Intent intent,
            int flags) {
        throw new UnsupportedOperationException();
    }
}
