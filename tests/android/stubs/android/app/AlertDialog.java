package android.app;

import android.content.DialogInterface;
import android.content.Context;

/** Source: https://developer.android.com/reference/android/app/AlertDialog */
public class AlertDialog {
    // Source: https://developer.android.com/reference/android/app/AlertDialog.Builder
    public static class Builder {
        public Builder(Context context) {
            throw new UnsupportedOperationException();
        }
        public Builder setTitle(int titleId) {
            throw new UnsupportedOperationException();
        }
        public Builder setMessage(CharSequence message) {
            throw new UnsupportedOperationException();
        }
        public Builder setItems(CharSequence[] items, DialogInterface.OnClickListener listener) {
            throw new UnsupportedOperationException();
        }
        public Builder setPositiveButton(int textId, DialogInterface.OnClickListener listener) {
            throw new UnsupportedOperationException();
        }
        public AlertDialog show() {
            throw new UnsupportedOperationException();
        }
    }
}
