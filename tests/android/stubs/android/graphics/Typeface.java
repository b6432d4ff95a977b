package android.graphics;

/** Source: https://developer.android.com/reference/android/graphics/Typeface */
public class Typeface {
    public static final Typeface DEFAULT = null;
    public static final Typeface DEFAULT_BOLD = null;
}
