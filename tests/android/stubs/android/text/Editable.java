package android.text;

/** Source: https://developer.android.com/reference/android/text/Editable */
public interface Editable extends CharSequence {
    void clear();
}
