package android.text.style;

/** Source: https://developer.android.com/reference/android/text/style/BackgroundColorSpan */
public class BackgroundColorSpan {
    public BackgroundColorSpan(int color) {
        throw new UnsupportedOperationException();
    }
}
