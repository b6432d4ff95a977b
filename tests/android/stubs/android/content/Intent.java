package android.content;

import android.net.Uri;

/** Source: https://developer.android.com/reference/android/content/Intent */
public class Intent {
    public static final String ACTION_BATTERY_CHANGED = "android.intent.action.BATTERY_CHANGED";
    public static final String ACTION_CREATE_DOCUMENT = "android.intent.action.CREATE_DOCUMENT";
    public static final String ACTION_OPEN_DOCUMENT = "android.intent.action.OPEN_DOCUMENT";
    public static final String CATEGORY_OPENABLE = "android.intent.category.OPENABLE";
    public static final String EXTRA_TITLE = "android.intent.extra.TITLE";
    public Intent(String action) {
        throw new UnsupportedOperationException();
    }
    public Intent(Context packageContext, Class<?> cls) {
        throw new UnsupportedOperationException();
    }
    public Intent addCategory(String category) {
        throw new UnsupportedOperationException();
    }
    public Intent setType(String type) {
        throw new UnsupportedOperationException();
    }
    public Intent putExtra(String name, String value) {
        throw new UnsupportedOperationException();
    }
    public int getIntExtra(String name, int defaultValue) {
        throw new UnsupportedOperationException();
    }
    public Uri getData() {
        throw new UnsupportedOperationException();
    }
}
