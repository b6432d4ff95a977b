package android.widget;

import android.view.ViewGroup;
import android.view.View;

/** Source: https://developer.android.com/reference/android/widget/ListAdapter */
public interface ListAdapter {
    // Source: https://developer.android.com/reference/android/widget/Adapter
    int getCount();
    Object getItem(int position);
    long getItemId(int position);
    View getView(int position, View convertView, ViewGroup parent);
}
