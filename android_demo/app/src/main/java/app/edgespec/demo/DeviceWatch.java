package app.edgespec.demo;

import android.content.BroadcastReceiver;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.BatteryManager;
import android.os.PowerManager;
import app.edgespec.bridge.ChatModel;
import java.util.HashMap;
import java.util.Map;

/** Tells the engine how warm the device is and how full its battery. */
final class DeviceWatch extends BroadcastReceiver {
    private final Context context;
    private final ChatModel chat;
    private final PowerManager power;
    private int thermal;
    private int percent = 100;
    private boolean charging;

    DeviceWatch(Context context, ChatModel chat) {
        this.context = context;
        this.chat = chat;
        power = context.getSystemService(PowerManager.class);
    }

    void start() {
        IntentFilter changes = new IntentFilter(Intent.ACTION_BATTERY_CHANGED);
        changes.addAction(PowerManager.ACTION_POWER_SAVE_MODE_CHANGED);
        context.registerReceiver(this, changes);
        power.addThermalStatusListener(
                status -> {
                    thermal = status;
                    tell();
                });
    }

    @Override
    public void onReceive(Context context, Intent intent) {
        int level = intent.getIntExtra(BatteryManager.EXTRA_LEVEL, -1);
        int scale = intent.getIntExtra(BatteryManager.EXTRA_SCALE, 0);
        if (level >= 0 && scale > 0) {
            percent = 100 * level / scale;
            charging = intent.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0;
        }
        tell();
    }

    private void tell() {
        Map<String, Object> conditions = new HashMap<>();
        conditions.put("thermal", thermal);
        conditions.put("battery", percent);
        conditions.put("charging", charging);
        conditions.put("saving", power.isPowerSaveMode());
        chat.adjust(conditions);
    }
}
