package android.widget;

/** Source: https://developer.android.com/reference/android/widget/ListView */
public class ListView extends AdapterView {
    public void setAdapter(ListAdapter adapter) {
        throw new UnsupportedOperationException();
    }
}
