package android.os;

/** Source: https://developer.android.com/reference/android/os/BatteryManager */
public class BatteryManager {
    public static final String EXTRA_LEVEL = "level";
    public static final String EXTRA_PLUGGED = "plugged";
    public static final String EXTRA_SCALE = "scale";
}
