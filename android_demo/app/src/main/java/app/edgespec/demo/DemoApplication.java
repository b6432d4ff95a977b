package app.edgespec.demo;

import android.app.ActivityManager;
import android.app.Application;
import android.content.Intent;
import android.os.Handler;
import android.os.Looper;
import app.edgespec.bridge.ChatModel;
import app.edgespec.bridge.EngineBridge;
import app.edgespec.bridge.PythonEngine;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;

/** Holds the conversation and the engine, which outlive the screen. */
public final class DemoApplication extends Application {
    /** Python's templates and graphs want more than a thread has by default. */
    private static final long STACK_BYTES = 16 << 20;

    private final Handler screen = new Handler(Looper.getMainLooper());
    private ChatModel chat;
    private Storage storage;
    private Runnable changed = () -> {};
    private boolean isServiceStarted;

    @Override
    public void onCreate() {
        super.onCreate();
        storage = new Storage(this);
        EngineBridge engine = new PythonEngine(new ChaquopyCaller(this));
        Executor thread =
                Executors.newSingleThreadExecutor(
                        work -> new Thread(null, work, "engine", STACK_BYTES));
        chat = new ChatModel(engine, thread, () -> screen.post(this::changed));
        chat.clear(storage.newTalk().getPath());
        DeviceWatch watch = new DeviceWatch(this, chat);
        thread.execute(
                () -> {
                    engine.stats(); // Python starts here, and not when the screen's thread calls
                    watch.start();
                });
    }

    ChatModel chat() {
        return chat;
    }

    Storage storage() {
        return storage;
    }

    /** Ends the service once nothing is served, then tells the screen. */
    private void changed() {
        if (isServiceStarted && !chat.isServing()) {
            stopService(new Intent(this, ServeService.class));
        }
        changed.run();
    }

    /** Told by the service, on the screen's thread, as it begins and as it ends. */
    void setServiceStarted(boolean isStarted) {
        isServiceStarted = isStarted;
    }

    /** Who is told, on the screen's thread, that the conversation has changed. */
    void watch(Runnable changed) {
        this.changed = changed;
    }

    /** What the engine is told of this device. */
    Map<String, Object> device() {
        ActivityManager.MemoryInfo memory = new ActivityManager.MemoryInfo();
        getSystemService(ActivityManager.class).getMemoryInfo(memory);
        Map<String, Object> device = new HashMap<>();
        device.put("files", getFilesDir().getPath());
        device.put("libraries", getApplicationInfo().nativeLibraryDir);
        device.put("memory_bytes", memory.availMem - memory.threshold);
        device.put("offline", true);
        device.put("think", "off");
        return device;
    }

    /** Under pressure the models are freed; the next question opens them again. */
    @Override
    public void onTrimMemory(int level) {
        super.onTrimMemory(level);
        if (level >= TRIM_MEMORY_BACKGROUND && chat.state() == ChatModel.State.READY) {
            chat.unload();
        }
    }
}
