package android.app;

import android.content.Context;

/** Source: https://developer.android.com/reference/android/app/Application */
public class Application extends Context {
    public void onCreate() {}
    public void onTrimMemory(int level) {}
    // Source: https://developer.android.com/reference/android/content/ComponentCallbacks2
    public static final int TRIM_MEMORY_BACKGROUND = 40;
}
