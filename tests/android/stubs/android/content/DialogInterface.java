package android.content;

/** Source: https://developer.android.com/reference/android/content/DialogInterface */
public interface DialogInterface {
    // Source: https://developer.android.com/reference/android/content/DialogInterface.OnClickListener
    interface OnClickListener {
        void onClick(DialogInterface dialog, int which);
    }
}
