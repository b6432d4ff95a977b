package android.widget;

import android.content.Context;

/** Source: https://developer.android.com/reference/android/widget/Toast */
public class Toast {
    public static final int LENGTH_SHORT = 0;
    public static Toast makeText(Context context, int resId, int duration) {
        throw new UnsupportedOperationException();
    }
    public void show() {
        throw new UnsupportedOperationException();
    }
}
