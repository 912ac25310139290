// SPDX-License-Identifier: GPL-2.0

// golang is the load of allocs.c for Go's runtime, with the same arguments and
// output. Go frees memory when it collects garbage, so the program calls
// runtime.GC() after each round; with runtime.patch, debug.FreeOSMemory(), which
// also releases all free memory.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	_ "unsafe"
)

const (
	page    = 4096
	mb      = 1 << 20
	small   = 16 << 10
	classes = 10
	part    = 256 << 10
)

// counts[0] is 2 if the runtime marks memory. The others are bytes: freed, marked,
// reused and kept, as in allocs.h. Without runtime.patch, all are 0.
//
//go:linkname counts runtime.lazyfreeCounts
var counts [5]uint64

var total int64

func touch(p []byte) {
	for i := 0; i < len(p); i += page {
		p[i] = 1
	}
}

func get(size int) []byte {
	p := make([]byte, size)
	touch(p)
	return p
}

func burst(random *rand.Rand, left int) {
	var blocks [][]byte
	atomic.AddInt64(&total, int64(left))
	for left > 0 {
		size, r := small, random.Intn(1<<classes-1)+1
		for ; r&(1<<(classes-1)) == 0; r <<= 1 {
			size *= 2
		}
		size += size / 4 * random.Intn(2)
		if size > left {
			size = left
		}
		blocks = append(blocks, get(size))
		left -= size
	}
	runtime.KeepAlive(blocks)
}

// thenFree runs f, and frees its garbage.
func thenFree(f func()) {
	f()
	if counts[0] == 2 {
		debug.FreeOSMemory()
	} else {
		runtime.GC()
	}
}

// cpuTime returns the CPU time of all processes of the cgroup.
func cpuTime() (us int64) {
	text, err := os.ReadFile("/sys/fs/cgroup/allocator/cpu.stat")
	if err != nil {
		panic(err)
	}
	fmt.Sscanf(string(text), "usage_usec %d", &us)
	return us * 1000
}

func together(random []*rand.Rand, each int) {
	var wait sync.WaitGroup
	wait.Add(len(random))
	for _, r := range random {
		go func(r *rand.Rand) {
			burst(r, each)
			wait.Done()
		}(r)
	}
	wait.Wait()
}

func number(i int) int {
	n, err := strconv.Atoi(os.Args[i])
	if err != nil {
		panic(err)
	}
	return n
}

func hugeKB() (kb int) {
	text, _ := os.ReadFile("/proc/self/smaps_rollup")
	for _, line := range strings.Split(string(text), "\n") {
		fmt.Sscanf(line, "AnonHugePages: %d", &kb)
	}
	return kb
}

func main() {
	load, bytes, rounds := os.Args[1], number(3)*mb, number(4)
	idle := time.Duration(number(5)) * time.Millisecond
	random := []*rand.Rand{rand.New(rand.NewSource(1)), rand.New(rand.NewSource(2))}
	var blocks [][]byte
	huge, token := 0, []byte{'\n'}
	half := func(use func() []byte) {
		for i := 0; i < len(blocks); i += 2 {
			blocks[i] = use()
		}
	}
	inHalf := load == "half" || load == "needed"
	for i := 0; inHalf && i < bytes/part; i++ {
		blocks = append(blocks, get(part))
	}
	cpu := cpuTime()
	for ; rounds > 0; rounds-- {
		switch load {
		case "churn":
			thenFree(func() { together(random, bytes/len(random)) })
			time.Sleep(idle)
		case "turns":
			os.Stdin.Read(token)
			for _, r := range random {
				thenFree(func() { burst(r, bytes) })
			}
			time.Sleep(idle)
			os.Stdout.Write(token)
		case "half", "needed":
			thenFree(func() { half(func() []byte { return nil }) })
			time.Sleep(idle)
			if load == "needed" {
				os.Stdout.Write(token)
				os.Stdin.Read(token)
			}
			half(func() []byte { return get(part) })
			for i := 1; i < len(blocks); i += 2 {
				touch(blocks[i])
			}
			total += int64(bytes / 2)
		}
	}
	cpu = cpuTime() - cpu
	if inHalf {
		if huge = hugeKB() * 1024 * 100 / bytes; huge > 100 {
			huge = 100
		}
		thenFree(func() { half(func() []byte { return nil }) })
		time.Sleep(idle)
	}
	fmt.Fprintln(os.Stderr, "done", cpu, total, counts[1], counts[2], counts[3], counts[4], huge)
	runtime.KeepAlive(blocks)
	time.Sleep(time.Hour)
}
