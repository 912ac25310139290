// SPDX-License-Identifier: GPL-2.0
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A workload of harness/peers: threads keep stamped arrays, replace and check
 * them, so that the garbage collector moves, frees and uncommits memory.
 */
public class Peer {
	static volatile Throwable failure;

	static void work(int seed, long end) {
		byte[][] kept = new byte[64][];
		for (int i = 0; System.nanoTime() < end; i++) {
			int slot = (i * 31 + seed) & 63;
			byte[] fresh = new byte[1024 + i * 7919 % 300_000];
			for (byte b : fresh)
				if (b != 0)
					throw new IllegalStateException("a new array is not zero");
			Arrays.fill(fresh, (byte) slot);
			if (kept[slot] != null)
				for (byte b : kept[slot])
					if (b != (byte) slot)
						throw new IllegalStateException("array " + slot + " has " + b);
			kept[slot] = fresh;
		}
	}

	public static void main(String[] args) throws InterruptedException {
		long end = System.nanoTime() + 15_000_000_000L;
		List<Thread> threads = new ArrayList<>();
		for (int i = 0; i < 4; i++) {
			int seed = i;
			Thread thread = new Thread(() -> work(seed, end));
			thread.setUncaughtExceptionHandler((t, e) -> failure = e);
			threads.add(thread);
			thread.start();
		}
		while (System.nanoTime() < end) {
			Thread.sleep(3000);
			System.gc();
		}
		for (Thread thread : threads)
			thread.join();
		if (failure != null) {
			failure.printStackTrace();
			System.exit(1);
		}
	}
}
