package android.view;

import android.content.Context;

/** Source: https://developer.android.com/reference/android/view/LayoutInflater */
public abstract class LayoutInflater {
    public static LayoutInflater from(Context context) {
        throw new UnsupportedOperationException();
    }
    public View inflate(int resource, ViewGroup root, boolean attachToRoot) {
        throw new UnsupportedOperationException();
    }
}
