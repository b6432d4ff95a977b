package android.view;

/** Source: https://developer.android.com/reference/android/view/MenuItem */
public interface MenuItem {
    int getItemId();
    boolean isChecked();
    MenuItem setChecked(boolean checked);
}
