package android.app;

/** Source: https://developer.android.com/reference/android/app/ActivityManager */
public class ActivityManager {
    public void getMemoryInfo(MemoryInfo outInfo) {
        throw new UnsupportedOperationException();
    }
    // Source: https://developer.android.com/reference/android/app/ActivityManager.MemoryInfo
    public static class MemoryInfo {
        public long availMem;
        public long threshold;
    }
}
