package android.provider;

/** Source: https://developer.android.com/reference/android/provider/OpenableColumns */
public interface OpenableColumns {
    String DISPLAY_NAME = "_display_name";
}
