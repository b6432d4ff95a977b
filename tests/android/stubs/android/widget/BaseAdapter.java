package android.widget;

/** Source: https://developer.android.com/reference/android/widget/BaseAdapter */
public abstract class BaseAdapter implements ListAdapter {
    public void notifyDataSetChanged() {
        throw new UnsupportedOperationException();
    }
}
