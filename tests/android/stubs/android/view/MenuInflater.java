package android.view;

/** Source: https://developer.android.com/reference/android/view/MenuInflater */
public class MenuInflater {
    public void inflate(int menuRes, Menu menu) {
        throw new UnsupportedOperationException();
    }
}
