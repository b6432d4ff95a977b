package android.content;

/** Source: https://developer.android.com/reference/android/content/ComponentName */
public final class ComponentName {
}
