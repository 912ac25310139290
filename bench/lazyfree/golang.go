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
	"time"
	_ "unsafe"
)

const (
	page    = 4096
	mb      = 1 << 20
	small   = 16 << 10
	classes = 10
	part    = 256 << 10
	threads = 2
)

// counts[0] is 2 if the runtime marks memory. The others are bytes: freed, marked,
// reused and kept, as in allocs.h. Without runtime.patch, all are 0.
//
//go:linkname counts runtime.lazyfreeCounts
var counts [5]uint64

var (
	spent time.Duration
	total int
)

func get(size int) []byte {
	p := make([]byte, size)
	for i := 0; i < size; i += page {
		p[i] = 1
	}
	return p
}

func burst(random *rand.Rand, left int) {
	var blocks [][]byte
	total += left
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

// timed runs f, and has its garbage freed.
func timed(f func()) {
	start := time.Now()
	f()
	if counts[0] == 2 {
		debug.FreeOSMemory()
	} else {
		runtime.GC()
	}
	spent += time.Since(start)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func hugeKB() (kb int) {
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	fail(err)
	for _, line := range strings.Split(string(text), "\n") {
		fmt.Sscanf(line, "AnonHugePages: %d", &kb)
	}
	return kb
}

func main() {
	var number [3]int
	for i := range number {
		n, err := strconv.Atoi(os.Args[3+i])
		fail(err)
		number[i] = n
	}
	bytes, rounds, idle := number[0]*mb, number[1], time.Duration(number[2])*time.Millisecond
	var random [threads]*rand.Rand
	for i := range random {
		random[i] = rand.New(rand.NewSource(int64(i + 1)))
	}
	huge, token := 0, []byte{'\n'}
	switch os.Args[1] {
	case "churn":
		for ; rounds > 0; rounds-- {
			timed(func() {
				var wait sync.WaitGroup
				wait.Add(threads)
				for i := range random {
					go func(r *rand.Rand) {
						burst(r, bytes/threads)
						wait.Done()
					}(random[i])
				}
				wait.Wait()
			})
			time.Sleep(idle)
		}
	case "turns":
		for ; rounds > 0; rounds-- {
			_, err := os.Stdin.Read(token)
			fail(err)
			for i := range random {
				timed(func() { burst(random[i], bytes) })
			}
			time.Sleep(idle)
			_, err = os.Stdout.Write(token)
			fail(err)
		}
	case "half":
		blocks := make([][]byte, bytes/part)
		for i := range blocks {
			blocks[i] = get(part)
		}
		free := func() {
			for i := 0; i < len(blocks); i += 2 {
				blocks[i] = nil
			}
		}
		for ; rounds > 0; rounds-- {
			timed(free)
			time.Sleep(idle)
			start := time.Now()
			for i := 0; i < len(blocks); i += 2 {
				blocks[i] = get(part)
				total += part
			}
			spent += time.Since(start)
		}
		if huge = hugeKB() * 1024 * 100 / bytes; huge > 100 {
			huge = 100
		}
		timed(free)
		time.Sleep(idle)
		runtime.KeepAlive(blocks)
	}
	fmt.Fprintln(os.Stderr, "done", spent.Nanoseconds(), total, counts[1], counts[2], counts[3], counts[4], huge)
	time.Sleep(time.Hour)
}
