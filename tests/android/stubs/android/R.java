package android;

/** Source: https://developer.android.com/reference/android/R */
public final class R {
    // Source: https://developer.android.com/reference/android/R.string
    public static final class string {
        public static final int ok = 17039370;
    }
}
