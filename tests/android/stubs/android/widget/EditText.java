package android.widget;

import android.text.Editable;

/** Source: https://developer.android.com/reference/android/widget/EditText */
public class EditText extends TextView {
    @Override
    public Editable getText() {
        throw new UnsupportedOperationException();
    }
}
