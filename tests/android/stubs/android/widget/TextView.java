package android.widget;

import android.view.View;
import android.graphics.Typeface;

/** Source: https://developer.android.com/reference/android/widget/TextView */
public class TextView extends View {
    public CharSequence getText() {
        throw new UnsupportedOperationException();
    }
    public final void setText(int resid) {
        throw new UnsupportedOperationException();
    }
    public final void setText(CharSequence text) {
        throw new UnsupportedOperationException();
    }
    public void setTypeface(Typeface tf) {
        throw new UnsupportedOperationException();
    }
}
