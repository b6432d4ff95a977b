package android.os;

/** Source: https://developer.android.com/reference/android/os/IBinder */
public interface IBinder {
}
