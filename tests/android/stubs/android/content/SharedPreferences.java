package android.content;

/** Source: https://developer.android.com/reference/android/content/SharedPreferences */
public interface SharedPreferences {
    String getString(String key, String defValue);
    Editor edit();
    // Source: https://developer.android.com/reference/android/content/SharedPreferences.Editor
    interface Editor {
        Editor putString(String key, String value);
        void apply();
    }
}
