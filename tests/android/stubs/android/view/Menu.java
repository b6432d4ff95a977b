package android.view;

/** Source: https://developer.android.com/reference/android/view/Menu */
public interface Menu {
    MenuItem findItem(int id);
}
