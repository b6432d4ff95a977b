package android.os;

/** Source: https://developer.android.com/reference/android/os/PowerManager */
public final class PowerManager {
    public static final String ACTION_POWER_SAVE_MODE_CHANGED = "android.os.action.POWER_SAVE_MODE_CHANGED";
    public boolean isPowerSaveMode() {
        throw new UnsupportedOperationException();
    }
    public void addThermalStatusListener(OnThermalStatusChangedListener listener) {
        throw new UnsupportedOperationException();
    }
    // Source: https://developer.android.com/reference/android/os/PowerManager.OnThermalStatusChangedListener
    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }
}
