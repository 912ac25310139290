// SPDX-License-Identifier: GPL-2.0

// A workload of harness/peers: goroutines build trees and slices and check them,
// so that the garbage collector frees and reuses memory all the time.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

type tree struct {
	left, right *tree
	stamp       int
}

func build(depth, stamp int) *tree {
	if depth == 0 {
		return &tree{stamp: stamp}
	}
	return &tree{build(depth-1, stamp), build(depth-1, stamp), stamp}
}

func (t *tree) check(stamp int) int {
	if t == nil {
		return 0
	}
	if t.stamp != stamp {
		fmt.Printf("peer.go: a node has %d instead of %d\n", t.stamp, stamp)
		os.Exit(1)
	}
	return 1 + t.left.check(stamp) + t.right.check(stamp)
}

func work(seed int, end time.Time) {
	for stamp := seed; time.Now().Before(end); stamp++ {
		if n := build(12, stamp).check(stamp); n != 1<<13-1 {
			fmt.Printf("peer.go: a tree has %d nodes\n", n)
			os.Exit(1)
		}
		for i, b := range make([]byte, 4<<20) {
			if b != 0 {
				fmt.Printf("peer.go: byte %d of a new slice is %d\n", i, b)
				os.Exit(1)
			}
		}
	}
}

func main() {
	var group sync.WaitGroup
	end := time.Now().Add(15 * time.Second)
	for i := 0; i < 2*runtime.NumCPU(); i++ {
		group.Add(1)
		go func(seed int) {
			defer group.Done()
			work(seed, end)
		}(i << 20)
	}
	for time.Now().Before(end) {
		time.Sleep(time.Second)
		debug.FreeOSMemory()
	}
	group.Wait()
}
