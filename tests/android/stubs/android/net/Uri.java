package android.net;

/** Source: https://developer.android.com/reference/android/net/Uri */
public abstract class Uri {
}
