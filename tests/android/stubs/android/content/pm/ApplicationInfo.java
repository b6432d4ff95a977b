package android.content.pm;

/** Source: https://developer.android.com/reference/android/content/pm/ApplicationInfo */
public class ApplicationInfo {
    public String nativeLibraryDir;
}
