package android.os;

/** Source: https://developer.android.com/reference/android/os/Bundle */
public final class Bundle {
}
