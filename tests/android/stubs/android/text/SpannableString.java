package android.text;

/** Source: https://developer.android.com/reference/android/text/SpannableString */
public class SpannableString implements CharSequence {
    public SpannableString(CharSequence source) {
        throw new UnsupportedOperationException();
    }
    public void setSpan(Object what, int start, int end, int flags) {
        throw new UnsupportedOperationException();
    }
    @Override
    public final int length() {
        throw new UnsupportedOperationException();
    }
    @Override
    public final char charAt(int i) {
        throw new UnsupportedOperationException();
    }
    @Override
    public final CharSequence subSequence(int start, int end) {
        throw new UnsupportedOperationException();
    }
}
