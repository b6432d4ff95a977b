package android.view;

/** Source: https://developer.android.com/reference/android/view/ViewGroup */
public abstract class ViewGroup extends View {
}
