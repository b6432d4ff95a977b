package android.view;

/** Source: https://developer.android.com/reference/android/view/View */
public class View {
    public void setEnabled(boolean enabled) {
        throw new UnsupportedOperationException();
    }
    public void setOnClickListener(OnClickListener l) {
        throw new UnsupportedOperationException();
    }
    // Source: https://developer.android.com/reference/android/view/View.OnClickListener
    public interface OnClickListener {
        void onClick(View v);
    }
}
