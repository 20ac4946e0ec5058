package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

type service struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	// After must be there before the start: a path, or tcp:HOST:PORT.
	After string `json:"after"`
	// Once: run to a successful end, then no more.
	Once bool `json:"once"`
}

type spec struct {
	Name     string            `json:"name"`
	LogDir   string            `json:"logDir"`
	CtlDir   string            `json:"ctlDir"` // NAME.stop here keeps NAME down; NAME.pid is written (node's pid namespace)
	Binds    map[string]string `json:"binds"`  // target in the node -> folder or file on the host
	Own      []string          `json:"own"`    // folders that the node may write and the machine keeps as they are
	Cgroup   string            `json:"cgroup"` // made in every hierarchy
	Services []service         `json:"services"`
}

func node(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("node SPEC")
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var s spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	if err := setup(&s); err != nil {
		return err
	}
	return supervise(&s)
}

func mount(src, dst, fs string, flags uintptr, data string) error {
	if err := syscall.Mount(src, dst, fs, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", src, dst, err)
	}
	return nil
}

// keep is where things are held while the node's tree is put together.
const keep = "/mnt"

func setup(s *spec) error {
	if err := mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(s.Name)); err != nil {
		return err
	}
	if err := mount("tmpfs", keep, "tmpfs", 0, "size=256m,mode=755"); err != nil {
		return err
	}
	held, err := hold(s.Binds)
	if err != nil {
		return err
	}
	if err := ownSys(); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for _, d := range []string{"/run/netns", "/run/lock"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for i, d := range s.Own {
		if err := own(d, fmt.Sprintf("%s/own%d", keep, i)); err != nil {
			return err
		}
	}
	for dst, src := range held {
		if err := put(src, dst); err != nil {
			return err
		}
	}
	if err := syscall.Unmount(keep, syscall.MNT_DETACH); err != nil {
		return err
	}
	// Kubelet and CSI-like agents expect shared propagation inside the node.
	if err := mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, ""); err != nil {
		return err
	}
	if s.Cgroup != "" {
		return makeCgroup(s.Cgroup)
	}
	return nil
}

// hold mounts each source below keep, so that it is had as it is on the machine whatever is mounted over its path; gives target -> there.
func hold(binds map[string]string) (map[string]string, error) {
	held := map[string]string{}
	for dst, src := range binds {
		at := fmt.Sprintf("%s/bind%d", keep, len(held))
		if err := put(src, at); err != nil {
			return nil, err
		}
		held[dst] = at
	}
	return held, nil
}

// put binds a folder or a file to a path, which is made where it is missing.
func put(src, dst string) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st.IsDir() {
		if err := os.MkdirAll(dst, 0o755); err != nil {
			return err
		}
	} else if _, err := os.Stat(dst); err != nil {
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(dst, nil, 0o644); err != nil {
			return err
		}
	}
	return mount(src, dst, "", syscall.MS_BIND|syscall.MS_REC, "")
}

// ownSys mounts a sysfs of this network namespace, with the machine's cgroup trees.
func ownSys() error {
	const groups = "/sys/fs/cgroup"
	if err := put(groups, keep+"/cgroup"); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if err := mount(keep+"/cgroup", groups, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	// bpffs is handy for node agents; absence is not an error.
	_ = syscall.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "")
	return nil
}

// own lets the node write in a folder of the machine without the machine having it: what it writes is in memory, below at.
func own(dir, at string) error {
	st, err := os.Stat(dir)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	for _, d := range []string{at, at + "/upper", at + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	// The merged folder has the upper one's mode.
	if err := os.Chmod(at+"/upper", st.Mode().Perm()); err != nil {
		return err
	}
	return mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", dir, at, at))
}

// makeCgroup makes the folder in every hierarchy of cgroup v1, or in the one of v2 with all its controllers on.
func makeCgroup(path string) error {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return makeCgroup2(root, path)
	}
	hs, err := filepath.Glob(root + "/*")
	if err != nil {
		return err
	}
	for _, h := range hs {
		if st, err := os.Lstat(h); err != nil || !st.IsDir() {
			continue // a link such as cpu -> cpu,cpuacct
		}
		cur := h
		for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
			parent := cur
			cur = filepath.Join(cur, part)
			if err := os.MkdirAll(cur, 0o755); err != nil {
				return err
			}
			if filepath.Base(h) != "cpuset" {
				continue
			}
			// A new folder of this hierarchy has neither, and takes no process without.
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				b, err := os.ReadFile(filepath.Join(parent, f))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(cur, f), b, 0o644); err != nil {
					return fmt.Errorf("%s/%s: %w", cur, f, err)
				}
			}
		}
	}
	return first(root+"/*", path, "cpu.shares", "262144")
}

// first gives the outermost folder all the CPU time it asks for: a node is a machine of its own, and a compiler beside it must not make its
// pods fail their probes.
func first(hierarchies, path, file, most string) error {
	top, _, _ := strings.Cut(strings.Trim(path, "/"), "/")
	fs, err := filepath.Glob(filepath.Join(hierarchies, top, file))
	if err != nil {
		return err
	}
	for _, f := range fs {
		if err := os.WriteFile(f, []byte(most), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func makeCgroup2(root, path string) error {
	b, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return err
	}
	on := ""
	for _, c := range strings.Fields(string(b)) {
		on += " +" + c
	}
	cur := root
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		if err := os.WriteFile(filepath.Join(cur, "cgroup.subtree_control"), []byte(strings.TrimSpace(on)), 0o644); err != nil {
			return fmt.Errorf("%s: %w", cur, err)
		}
		cur = filepath.Join(cur, part)
		if err := os.MkdirAll(cur, 0o755); err != nil {
			return err
		}
	}
	return first(root, path, "cpu.weight", "10000")
}

func supervise(s *spec) error {
	log.SetPrefix("kit[" + s.Name + "] ")
	var mu sync.Mutex
	exits := map[int]chan syscall.WaitStatus{}
	stopping := false

	start := func(sv service) (int, chan syscall.WaitStatus, error) {
		lf, err := os.OpenFile(filepath.Join(s.LogDir, sv.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return 0, nil, err
		}
		defer lf.Close()
		null, err := os.Open("/dev/null")
		if err != nil {
			return 0, nil, err
		}
		defer null.Close()
		mu.Lock()
		defer mu.Unlock()
		pid, err := syscall.ForkExec(sv.Args[0], sv.Args, &syscall.ProcAttr{
			Dir:   "/",
			Env:   append(os.Environ(), sv.Env...),
			Files: []uintptr{null.Fd(), lf.Fd(), lf.Fd()},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			return 0, nil, err
		}
		ch := make(chan syscall.WaitStatus, 1)
		exits[pid] = ch
		_ = os.WriteFile(filepath.Join(s.CtlDir, sv.Name+".pid"), []byte(fmt.Sprintln(pid)), 0o644)
		return pid, ch, nil
	}

	// Reaper: PID 1 of the node collects every orphan.
	chld := make(chan os.Signal, 64)
	signal.Notify(chld, syscall.SIGCHLD)
	go func() {
		for {
			for {
				var ws syscall.WaitStatus
				mu.Lock()
				pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
				if err != nil || pid <= 0 {
					mu.Unlock()
					break
				}
				if ch, ok := exits[pid]; ok {
					delete(exits, pid)
					ch <- ws
				}
				mu.Unlock()
			}
			select {
			case <-chld:
			case <-time.After(2 * time.Second):
			}
		}
	}()

	for _, sv := range s.Services {
		go func(sv service) {
			stopFile := filepath.Join(s.CtlDir, sv.Name+".stop")
			for {
				if sv.After != "" {
					for {
						if there(sv.After) {
							break
						}
						time.Sleep(20 * time.Millisecond)
					}
				}
				if _, err := os.Stat(stopFile); err == nil {
					time.Sleep(200 * time.Millisecond)
					continue
				}
				mu.Lock()
				st := stopping
				mu.Unlock()
				if st {
					return
				}
				t0 := time.Now()
				pid, ch, err := start(sv)
				if err != nil {
					log.Printf("%s: %v", sv.Name, err)
					time.Sleep(2 * time.Second)
					continue
				}
				log.Printf("%s started, pid %d", sv.Name, pid)
				tick := time.NewTicker(500 * time.Millisecond)
				var ws syscall.WaitStatus
			wait:
				for {
					select {
					case ws = <-ch:
						break wait
					case <-tick.C:
						if _, err := os.Stat(stopFile); err == nil {
							_ = syscall.Kill(pid, syscall.SIGKILL)
						}
					}
				}
				tick.Stop()
				log.Printf("%s ended: exit %d signal %v after %v", sv.Name, ws.ExitStatus(), ws.Signal(), time.Since(t0).Round(time.Millisecond))
				if sv.Once && ws.ExitStatus() == 0 {
					return
				}
				if time.Since(t0) < 5*time.Second {
					time.Sleep(500 * time.Millisecond)
				}
			}
		}(sv)
	}

	term := make(chan os.Signal, 4)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	<-term
	mu.Lock()
	stopping = true
	mu.Unlock()
	log.Print("stopping: the pid namespace goes with this process")
	return nil
}

func there(what string) bool {
	if a, ok := strings.CutPrefix(what, "tcp:"); ok {
		c, err := net.DialTimeout("tcp", a, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	_, err := os.Stat(what)
	return err == nil
}
