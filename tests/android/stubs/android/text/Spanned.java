package android.text;

/** Source: https://developer.android.com/reference/android/text/Spanned */
public interface Spanned extends CharSequence {
    int SPAN_EXCLUSIVE_EXCLUSIVE = 33;
}
