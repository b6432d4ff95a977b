package android.widget;

import android.view.ViewGroup;
import android.view.View;

/** Source: https://developer.android.com/reference/android/widget/AdapterView */
public abstract class AdapterView extends ViewGroup {
    public void setOnItemLongClickListener(OnItemLongClickListener listener) {
        throw new UnsupportedOperationException();
    }
    // Source: https://developer.android.com/reference/android/widget/AdapterView.OnItemLongClickListener
    public interface OnItemLongClickListener {
        boolean onItemLongClick(AdapterView parent, View view, int position, long id);
    }
}
