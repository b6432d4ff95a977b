package android.app;

import android.content.Context;

/** Source: https://developer.android.com/reference/android/app/Notification */
public class Notification {
    // Source: https://developer.android.com/reference/android/app/Notification.Builder
    public static class Builder {
        public Builder(Context context, String channelId) {
            throw new UnsupportedOperationException();
        }
        public Builder setSmallIcon(int icon) {
            throw new UnsupportedOperationException();
        }
        public Builder setContentTitle(CharSequence title) {
            throw new UnsupportedOperationException();
        }
        public Builder setContentIntent(PendingIntent intent) {
            throw new UnsupportedOperationException();
        }
        public Notification build() {
            throw new UnsupportedOperationException();
        }
    }
}
